/** Prints each step of the tour: what was expected beside what happened. */
import { Effect } from "effect"

export class Transcript {
  #steps = 0
  #failed = 0

  readonly chapter = (title: string): void => console.log(`\n${title}\n`)

  readonly show = (line: string | undefined): void => console.log(`         ${line}`)

  readonly check = (title: string, expected: string, run: string | Effect.Effect<string>): Effect.Effect<void> =>
    Effect.map(typeof run === "string" ? Effect.succeed(run) : run, (came) => {
      const isAsExpected = came === expected
      this.#steps += 1
      if (!isAsExpected) this.#failed += 1
      const number = String(this.#steps).padStart(3)
      const mark = isAsExpected ? "ok  " : "FAIL"
      console.log(`${number} ${mark} ${title}\n         expected: ${expected.padEnd(38)} came: ${came}`)
    })

  readonly summary = (): boolean => {
    console.log(`\n${this.#steps - this.#failed} of ${this.#steps} steps went as expected`)
    return this.#failed === 0
  }
}
