# Data that documents on hglm simulate, by the code printed there and R's base generator (the same in all R >= 3.6).
# From the repository's root: Rscript models/make_simulated.R
# Needs base R only.

write <- function(data, name) write.csv(data, file.path("models", "data", name), row.names = FALSE, quote = FALSE)

# The R Journal 2(2), 20-28 (2010), Examples 1 to 3, run one after the other. The paper's second and third printed results
# also contain a call of plot() between the examples, which in the version of 2010 drew random numbers.
set.seed(123)
n.clus <- 5
n.per.clus <- 20
n <- n.clus * n.per.clus
Z <- diag(n.clus) %x% rep(1, n.per.clus)
a <- rnorm(n.clus, 0, sqrt(0.2))
e <- rnorm(n, 0, sqrt(1))
y1 <- Z %*% a + e
x_d <- rbinom(n, 1, 0.5)
e <- rnorm(n, 0, sqrt(exp(x_d)))
y2 <- Z %*% a + e
u <- rgamma(n.clus, 1)
y3 <- rpois(n, exp(Z %*% u))
options(digits = 15)
write(data.frame(clus = rep(1:n.clus, each = n.per.clus), x_d, y1 = signif(y1, 15), y2 = signif(y2, 15), y3),
      "hglm_paper.csv")

# Tutorial for the hglm package (Roslin, 2013), sections 3.1 (random effects in the dispersion) and 3.3 (model choice).
ID <- rep(1:10, each = 50)
set.seed(123)
u <- rnorm(10, 0, 2)
u_d <- rnorm(10, 0, 1)
double <- u[ID] + rnorm(500, 0, sqrt(exp(u_d[ID])))
set.seed(123)
u <- rnorm(10, 0, 2)
selection <- u[ID] + rnorm(500)
Z2 <- scale(matrix(rnorm(500 * 20), 500, 20))
colnames(Z2) <- paste0("z", 1:20)
write(data.frame(ID, double = signif(double, 15), selection = signif(selection, 15), round(Z2, 6)), "hglm_tutorial.csv")
