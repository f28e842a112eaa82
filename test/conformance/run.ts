/** `npm run conformance` prints what the conformance suite says of a server with the layer and of the same without. */
import { Effect } from "effect"
import { compare, revisions } from "./compare.ts"

let wentWell = true
for (const revision of revisions) {
  const { checks, lost, otherwise, passWith, passWithout } = await Effect.runPromise(compare(revision))
  console.log(`${revision}: ${checks} checks, ${passWithout} pass without the layer, ${passWith} with it`)
  for (const check of lost) console.log(`  lost: ${check}`)
  for (const [check, without, withLayer] of otherwise) {
    console.log(`  ${check}\n    without: ${without.slice(0, 300)}\n    with:    ${withLayer.slice(0, 300)}`)
  }
  if (lost.length > 0 || checks === 0) wentWell = false
}
process.exitCode = wentWell ? 0 : 1
