/** The key of the one caller of the benchmark's servers. */
export const key = "no secret but one for benchmarks"
