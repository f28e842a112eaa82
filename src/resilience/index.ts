export * as ResilienceError from "./ResilienceError.ts"
export * as ResilienceMiddleware from "./ResilienceMiddleware.ts"
export * as ResiliencePolicy from "./ResiliencePolicy.ts"
