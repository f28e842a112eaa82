export * as McpOps from "./McpOps.ts"
export * as ToolkitOps from "./ToolkitOps.ts"
export * as ToolPolicy from "./ToolPolicy.ts"
export * as ToolRefusal from "./ToolRefusal.ts"
