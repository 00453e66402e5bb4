# What both R workers share. Arguments of a worker: the folder of the case, family, formula, fits in one process.

arguments <- commandArgs(trailingOnly = TRUE)
folder <- arguments[1]
family <- arguments[2]
formula <- as.formula(arguments[3])
repeats <- as.integer(arguments[4])

read_case <- function() {
  files <- list.files(folder, pattern = "\\.(f64|i32)$", full.names = TRUE)
  columns <- lapply(files, function(file) {
    if (endsWith(file, ".f64")) readBin(file, "double", file.size(file) / 8)
    else factor(readBin(file, "integer", file.size(file) / 4, size = 4))
  })
  names(columns) <- sub("\\.[^.]*$", "", basename(files))
  as.data.frame(columns)
}

glm_family <- function() if (family == "poisson") poisson() else binomial()

memory <- function(field) {
  if (!file.exists("/proc/self/status")) return(NA)
  line <- grep(paste0("^", field, ":"), readLines("/proc/self/status"), value = TRUE)
  as.numeric(gsub("[^0-9]", "", line)) / 1024
}

number <- function(x) ifelse(is.finite(x), format(x, digits = 15, trim = TRUE), "null")
text <- function(x) paste0('"', gsub('["\\\\\n]', " ", x), '"')
array <- function(x) paste0("[", paste(number(x), collapse = ", "), "]")
object <- function(names, values) paste0("{", paste0(text(names), ": ", values, collapse = ", "), "}")

# Labels as in the tables: "sd g", "sd g:x", "sigma".
sd_label <- function(group, effect) {
  group <- sub("\\.[0-9]+$", "", group)
  paste("sd", ifelse(effect == "(Intercept)", group, paste0(group, ":", effect)))
}

run <- function(fit, finish, package) {
  before <- memory("VmRSS")
  seconds <- cpu <- numeric(repeats)
  for (k in seq_len(repeats)) {
    used <- system.time(result <- suppressWarnings(fit()))
    seconds[k] <- used[["elapsed"]]
    cpu[k] <- used[["user.self"]] + used[["sys.self"]]
  }
  found <- finish(result)
  cat(object(
    c("seconds", "cpu", "before_mb", "peak_mb", "log_likelihood", "status", "version", "estimates"),
    c(array(seconds), array(cpu), number(before), number(memory("VmHWM")), number(as.numeric(logLik(result))),
      text(found$status), text(as.character(packageVersion(package))),
      object(sub("(Intercept)", "intercept", names(found$values), fixed = TRUE), number(found$values)))
  ), "\n")
}
