# ComBat of R's sva on a matrix in a file; called by peers.py.
# FOLDER ROWS FEATURES KIND BUDGET -> FOLDER/y and FOLDER/cost: KiB before, KiB at the
# peak, and the seconds of up to five calls
a <- commandArgs(TRUE)
suppressMessages(library(sva))
n <- as.integer(a[2]); p <- as.integer(a[3]); budget <- as.numeric(a[5])
file_of <- function(name) file.path(a[1], name)
x <- readBin(file_of("x"), "double", n * p)
dim(x) <- c(p, n)
batch <- readBin(file_of("batch"), "integer", n)
status <- function(key) {
  line <- grep(paste0("^", key, ":"), readLines("/proc/self/status"), value = TRUE)
  as.numeric(gsub("[^0-9]", "", line))
}
invisible(gc())
cat("5", file = "/proc/self/clear_refs")
before <- status("VmRSS")
peak <- 0
took <- c()
while (length(took) < 5 && sum(took) < budget) {
  y <- NULL
  call <- system.time(y <- ComBat(x, batch, par.prior = a[4] == "parametric"))
  took <- c(took, call[["elapsed"]])
  if (peak == 0) peak <- status("VmHWM")
}
cat(before, peak, took, file = file_of("cost"))
writeBin(as.vector(y), file_of("y"))
