export * as AuthError from "./AuthError.ts"
export * as AuthMiddleware from "./AuthMiddleware.ts"
export * as Identity from "./Identity.ts"
