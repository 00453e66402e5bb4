# Two files from Debian packages that need not be installed, only unpacked; data/README.md has the commands.
# From the repository's root: Rscript models/make_from_deb.R <folder of the unpacked r-cran-qtl>
# Needs base R only.

folder <- commandArgs(trailingOnly = TRUE)[1]
load(file.path(folder, "usr", "lib", "R", "site-library", "qtl", "data", "multitrait.RData"))
markers <- do.call(cbind, lapply(multitrait$geno, function(chromosome) chromosome$data))
traits <- multitrait$pheno[, c("X4.Hydroxybutyl", "X3.Butenyl", "X2.Propenyl", "X5.Benzoyloxypentyl")]
names(traits) <- c("hydroxybutyl", "butenyl", "propenyl", "benzoyloxypentyl")
positions <- unlist(lapply(names(multitrait$geno), function(k) {
  map <- multitrait$geno[[k]]$map
  sprintf("chr%s_%.1f_%d", k, as.numeric(map), seq_along(map))
}))
colnames(markers) <- positions
data <- cbind(line = seq_len(nrow(markers)), traits, markers)
write.csv(data, file.path("models", "data", "glucosinolates.csv"), row.names = FALSE, quote = FALSE, na = "")
