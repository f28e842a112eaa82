import { defineConfig } from "vitest/config"
import { writeExamples } from "./test/support/examples.ts"

writeExamples()

export default defineConfig({
  resolve: { tsconfigPaths: true },
  test: {
    include: ["test/**/*.test.ts", "test/.examples/*.test.ts"],
    globalSetup: ["test/support/redis.ts"],
    testTimeout: 30_000,
    // Two cores and several suites that start servers and child processes: more workers only make each other late.
    maxWorkers: 2
  }
})
