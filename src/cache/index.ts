export * as CacheMiddleware from "./CacheMiddleware.ts"
export * as CachePolicy from "./CachePolicy.ts"
