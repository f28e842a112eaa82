import { Deferred, Effect } from "effect"
import * as Http from "node:http"
import type { AddressInfo } from "node:net"

/** A request as the server saw it. */
export interface Seen {
  readonly method: string
  readonly path: string
  readonly headers: Http.IncomingHttpHeaders
  readonly body: string
}

interface Token {
  readonly seconds: number
  readonly isRenewable: boolean
  /** What a renewal gives, one after the other; then nothing but an error. */
  readonly renewals: Array<number>
}

const version = (data: unknown, number: number, deletion = "") => ({
  data,
  metadata: {
    created_time: "2018-03-22T02:24:06.945319214Z",
    custom_metadata: null,
    deletion_time: deletion,
    destroyed: false,
    version: number
  }
})

const envelope = (data: unknown, auth: unknown = null) => ({
  request_id: "9e9a8f1b-1c7e-4b0a-8b62-0c2b5a1b7f11",
  lease_id: "",
  renewable: false,
  lease_duration: 0,
  data,
  wrap_info: null,
  warnings: null,
  auth
})

/** The state of a server that speaks the part of Vault's HTTP API that programs read secrets with. */
export const makeVault = Effect.gen(function*() {
  const seen: Array<Seen> = []
  const state = {
    /** By mount and path; one entry per version, of which undefined ones have been deleted. */
    secrets: new Map<string, ReadonlyArray<Record<string, unknown> | undefined>>(),
    tokens: new Map<string, Token>([["root", { seconds: 0, isRenewable: false, renewals: [] }]]),
    namespace: undefined as string | undefined,
    isSealed: false,
    /** Paths that no policy allows. */
    forbidden: new Set<string>(),
    jwt: "jwt-1",
    logins: 0,
    lease: { seconds: 3600, isRenewable: true, renewals: [3600, 3600, 3600] } as Token,
    /** Answers in the place of the server. */
    override: undefined as ((request: Seen, response: Http.ServerResponse) => boolean) | undefined
  }
  const arrivals = new Map<string, Deferred.Deferred<void>>()

  const answer = (request: Seen): readonly [status: number, body: unknown] => {
    const [path, query] = request.path.split("?")
    const errors = (status: number, ...texts: ReadonlyArray<string>) => [status, { errors: texts }] as const
    if (state.isSealed) return errors(503, "Vault is sealed")
    if (request.headers["x-vault-request"] !== "true") return errors(412, "missing 'X-Vault-Request' header")
    if (request.headers["x-vault-namespace"] !== state.namespace) return errors(404)
    if (request.method === "POST" && /^\/v1\/auth\/(?:kubernetes|team\/k8s)\/login$/.test(path!)) {
      const { jwt, role } = JSON.parse(request.body)
      if (role !== "app" || jwt !== state.jwt) return errors(403, "permission denied")
      const token = `login-${++state.logins}`
      state.tokens.set(token, { ...state.lease, renewals: [...state.lease.renewals] })
      const { isRenewable, seconds } = state.lease
      return [200, envelope(null, { client_token: token, lease_duration: seconds, renewable: isRenewable })]
    }
    const name = String(request.headers["x-vault-token"])
    const token = state.tokens.get(name)
    if (token === undefined) return errors(403, "permission denied")
    if (path === "/v1/auth/token/lookup-self") {
      return [200, envelope({ ttl: token.seconds, renewable: token.isRenewable, policies: ["app"] })]
    }
    if (path === "/v1/auth/token/renew-self") {
      const seconds = token.renewals.shift()
      if (seconds === undefined) return errors(400, "lease is not renewable")
      return [200, envelope(null, { client_token: name, lease_duration: seconds, renewable: true })]
    }
    if (state.forbidden.has(path!)) return errors(403, "1 error occurred:\n\t* permission denied\n\n")
    const versions = state.secrets.get(path!.replace("/v1/", ""))
    if (versions === undefined) return errors(404)
    const number = Number(new URLSearchParams(query).get("version") ?? versions.length)
    const data = versions[number - 1]
    if (number > versions.length) return errors(404)
    if (data === undefined) return [404, envelope(version(null, number, "2018-03-22T02:36:43.986212308Z"))]
    return [200, envelope(version(data, number))]
  }

  const server = Http.createServer((incoming, response) => {
    let body = ""
    incoming.on("data", (chunk) => body += chunk)
    incoming.on("end", () => {
      const request = { method: incoming.method!, path: incoming.url!, headers: incoming.headers, body }
      seen.push(request)
      const arrival = arrivals.get(request.path)
      if (arrival !== undefined) Deferred.doneUnsafe(arrival, Effect.void)
      if (state.override?.(request, response) === true) return
      const [status, content] = answer(request)
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(content))
    })
  })
  yield* Effect.acquireRelease(
    Effect.promise(() => new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))),
    () =>
      Effect.promise(() =>
        new Promise((resolve) => {
          server.close(resolve)
          server.closeAllConnections()
        })
      )
  )
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    address,
    state,
    seen,
    /** Ends with the next request for a path. */
    arrival: (path: string) => {
      const arrival = Deferred.makeUnsafe<void>()
      arrivals.set(path, arrival)
      return Deferred.await(arrival)
    }
  }
})
