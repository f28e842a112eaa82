import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Stdio from "effect/Stdio"

/** Redrawn no oftener than this, so that drawing takes no time. */
const redrawMillis = 100

const cells = 30

/**
 * A bar on standard error that says how many bytes of how many are done, where that is a terminal. `show` draws it, `clear`
 * takes it away.
 */
export const makeProgress = Effect.gen(function*() {
  const stdio = yield* Stdio.Stdio
  if (!(yield* stdio.stderrIsTerminal)) return { show: () => Effect.void, clear: Effect.void }
  let drawnAt = -Infinity
  const show = (done: number, total: number): Effect.Effect<void> =>
    Effect.map(Clock.currentTimeMillis, (now) => {
      if (Math.abs(now - drawnAt) < redrawMillis && done < total) return
      drawnAt = now
      const share = total === 0 ? 1 : done / total
      const bar = "#".repeat(Math.round(share * cells)).padEnd(cells, ".")
      const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1)
      process.stderr.write(
        `\r[${bar}] ${(share * 100).toFixed(0).padStart(3)} %  ${megabytes(done)} of ${megabytes(total)} MB`
      )
    })
  // The rest of the line is taken away as well.
  const clear = Effect.sync(() => void process.stderr.write("\r\u001b[2K"))
  return { show, clear }
})
