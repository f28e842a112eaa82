export * as ObserveMiddleware from "./ObserveMiddleware.ts"
