/** `npm run conformance` prints what the conformance suite says of a server with the layer and of the same without. */
import { Effect } from "effect"
import { clientAuthScenarios, compare, revisions } from "./compare.ts"

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
// In these the suite is the MCP server and the authorization server, and what it judges is how a client finds out where to
// get a token, asks for it with the right scopes and checks who has issued it. The layer never asks for a token: as a server
// it checks them (`resourceServer`), and `McpOps.client` goes through a client of yours.
const scenarios = await Effect.runPromise(clientAuthScenarios)
console.log(`client: ${scenarios.length} scenarios of auth are for OAuth clients, which this is not, and are not run`)
process.exitCode = wentWell ? 0 : 1
