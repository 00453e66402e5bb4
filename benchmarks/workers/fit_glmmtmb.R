# glmmTMB: Laplace (REML for normal responses), nlminb with default tolerances, standard errors included as by default.

here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
source(file.path(here, "common.R"))
suppressPackageStartupMessages(library(glmmTMB))
data <- read_case()

fit <- function() {
  if (family == "gaussian") glmmTMB(formula, data, gaussian(), REML = TRUE)
  else glmmTMB(formula, data, glm_family())
}

finish <- function(result) {
  parts <- VarCorr(result)$cond
  sds <- unlist(unname(Map(function(part, group) {
    values <- attr(part, "stddev")
    setNames(values, sd_label(group, names(values)))
  }, parts, names(parts))))
  values <- c(fixef(result)$cond, sds)
  if (family == "gaussian") values <- c(values, sigma = sigma(result))
  list(values = values, status = if (result$fit$convergence == 0) "" else result$fit$message)
}

run(fit, finish, "glmmTMB")
