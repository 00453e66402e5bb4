# lme4: lmer (REML) for normal responses, glmer (Laplace) for the others, default optimisers and tolerances.

here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
source(file.path(here, "common.R"))
suppressPackageStartupMessages(library(lme4))
data <- read_case()

fit <- function() {
  if (family == "gaussian") lmer(formula, data, REML = TRUE)
  else glmer(formula, data, glm_family(), nAGQ = 1)
}

finish <- function(result) {
  sds <- as.data.frame(VarCorr(result))
  labels <- ifelse(sds$grp == "Residual", "sigma", sd_label(sds$grp, sds$var1))
  messages <- unlist(result@optinfo$conv$lme4$messages)
  list(values = c(fixef(result), setNames(sds$sdcor, labels)), status = paste(messages, collapse = "; "))
}

run(fit, finish, "lme4")
