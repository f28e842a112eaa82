import { defineConfig } from "vitest/config"
import { writeExamples } from "./test/support/examples.ts"

writeExamples()

export default defineConfig({
  resolve: { tsconfigPaths: true },
  test: {
    testTimeout: 30_000,
    // Two cores and several suites that start servers and child processes: more workers only make each other late.
    maxWorkers: 2,
    projects: [
      {
        extends: true,
        test: {
          name: "tests",
          include: ["test/**/*.test.ts"],
          exclude: ["**/node_modules/**", "test/.examples/**"],
          globalSetup: ["test/support/redis.ts"]
        }
      },
      // Many small files that need nothing of their own, so they need not each load the library anew.
      { extends: true, test: { name: "examples", include: ["test/.examples/*.test.ts"], isolate: false } }
    ]
  }
})
