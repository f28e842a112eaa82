/**
 * Chooses among authenticators of bearer tokens. Users find all of it in `Authenticator`.
 *
 * @since 0.1.0
 */
import * as Option from "effect/Option"
import type { Service } from "./Authenticator.ts"
import { routeByIssuer } from "./internal/routeByIssuer.ts"

/**
 * Who reads which bearer tokens.
 *
 * - `issuers`: the authenticator of each issuer's tokens, by the `iss` that they claim, to the letter.
 * - `opaque`: the authenticator of every token that claims no issuer. Default: such tokens are refused.
 *
 * @category options
 * @since 0.1.0
 */
export interface ByIssuer<A> {
  readonly issuers: Readonly<Record<string, A>>
  readonly opaque?: A | undefined
}

/**
 * Hands each bearer token to one authenticator, chosen by the issuer that the token claims: for servers that take the
 * tokens of several issuers, or tokens that can be read beside tokens that only their issuer can read. `firstOf` cannot
 * do that, because there all authenticators look at the one header and each refuses what is not its own.
 *
 * **Details**
 *
 * The claimed issuer has not been verified and only chooses. What the chosen authenticator answers is final, so nothing
 * falls through to another; a token of an issuer that is not listed is refused.
 *
 * **Gotchas**
 *
 * The same principal of two issuers is two callers. Tenants and roles are shared by all: each issuer can name any, where
 * its authenticator reads them. `Jwt` reads no tenant unless `tenantClaim` is given; `tenantClaim: "iss"` gives every
 * issuer a tenant of its own, and a `rolesClaim` that an issuer does not write leaves its callers without roles. An
 * authenticator of your own sets `issuer` itself.
 *
 * **Example** (Tokens of two kinds)
 *
 * ```ts
 * import { Layer, Redacted } from "effect"
 * import { Authenticator, Jwks, Jwt, TokenIntrospection } from "effect-toolops/auth"
 * import { FetchHttpClient } from "effect/http"
 *
 * const audience = "https://tools.example"
 * const Callers = Authenticator.layerByIssuer({
 *   issuers: {
 *     "https://login.example": Jwt.layerJwks({ algorithms: ["ES256"], issuer: "https://login.example", audience }).pipe(
 *       Layer.provide(Jwks.layer({ url: "https://login.example/jwks" }))
 *     )
 *   },
 *   opaque: TokenIntrospection.layer({
 *     url: "https://legacy.example/introspect",
 *     clientId: "tools",
 *     clientSecret: Redacted.make("no secret but an example"),
 *     audience
 *   })
 * }).pipe(Layer.provide(FetchHttpClient.layer))
 *
 * Layer.isLayer(Callers) // => true
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const byIssuer = (options: ByIssuer<Service>): Service => ({
  ...routeByIssuer("Authenticator.byIssuer", options),
  anonymous: Option.none(),
  schemes: ["Bearer"]
})
