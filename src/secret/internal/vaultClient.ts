import * as Effect from "effect/Effect"
import type * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Redacted from "effect/Redacted"
import { boundedFetch } from "../../internal/boundedFetch.ts"
import type { SecretUnavailable } from "../SecretError.ts"
import { textOf } from "./outcome.ts"

/** Where a Vault server is and how it is asked. */
export interface VaultServer {
  readonly address: URL
  readonly namespace: string | undefined
  readonly timeout: number
  readonly maxBytes: number
}

/** Why Vault did not answer. */
export type Problem = SecretUnavailable["problem"] | "not found"

/** Sends requests to one server and gives the JSON of its answer. */
export type Ask = (request: {
  readonly method: "GET" | "POST"
  /** Segments below `/v1`, not encoded. */
  readonly path: ReadonlyArray<string>
  readonly version?: number | undefined
  readonly token?: Redacted.Redacted | undefined
  readonly body?: Readonly<Record<string, string>> | undefined
}) => Effect.Effect<unknown, Problem>

// https://developer.hashicorp.com/vault/api-docs#http-status-codes
const problemOf = (status: number): Problem =>
  status === 404 ? "not found" : status === 403 || status === 401 ? "denied" : status === 503 ? "sealed" : "failed"

const parsed = (body: Uint8Array): Effect.Effect<unknown, Problem> => {
  try {
    const text = textOf(body)
    return text === undefined ? Effect.fail("unreadable") : Effect.succeed(JSON.parse(text))
  } catch {
    return Effect.fail("unreadable")
  }
}

export const makeAsk =
  (client: HttpClient.HttpClient, server: VaultServer): Ask => ({ body, method, path, token, version }) => {
    const url = new URL(server.address)
    url.pathname = `${url.pathname.replace(/\/+$/, "")}/v1/${path.map(encodeURIComponent).join("/")}`
    if (version !== undefined) url.searchParams.set("version", String(version))
    const request = HttpClientRequest.make(method)(url.href, {
      headers: {
        accept: "application/json",
        // Vault asks for it where requests might be forged on behalf of somebody who can reach it.
        "x-vault-request": "true",
        ...(server.namespace === undefined ? {} : { "x-vault-namespace": server.namespace }),
        ...(token === undefined ? {} : { "x-vault-token": Redacted.value(token) })
      }
    }).pipe(
      body === undefined
        ? (same) => same
        : HttpClientRequest.bodyText(JSON.stringify(body), "application/json")
    )
    return boundedFetch({ client, request, url, timeout: server.timeout, maxBytes: server.maxBytes }).pipe(
      Effect.mapError(({ why }): Problem =>
        why === "timed out" ? "timeout" : why === "too large" ? "unreadable" : "failed"
      ),
      Effect.flatMap((reply) => reply.status === 200 ? parsed(reply.body) : Effect.fail(problemOf(reply.status)))
    )
  }

/** A member of a JSON object, or undefined. */
export const at = (value: unknown, ...path: ReadonlyArray<string>): unknown => {
  let current = value
  for (const name of path) {
    if (typeof current !== "object" || current === null || !Object.hasOwn(current, name)) return undefined
    current = (current as Readonly<Record<string, unknown>>)[name]
  }
  return current
}
