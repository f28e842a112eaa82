import * as HttpServerResponse from "effect/http/HttpServerResponse"
import type { HealthStatus } from "../HealthCheck.ts"
import type { Report } from "../HealthRegistry.ts"
import type { CheckReport } from "./runner.ts"

/** The two ways to tell a report: the members that toolops has, and draft-inadarei-api-health-check-06. */
export type Shape = "toolops" | "health+json"

export type ByStatus = Readonly<Record<HealthStatus, HttpServerResponse.HttpServerResponse>>

// The draft has words of its own.
const words: ByWord = { healthy: "pass", degraded: "warn", unhealthy: "fail" }
type ByWord = Readonly<Record<HealthStatus, string>>

const statusWord = (shape: Shape, status: HealthStatus): string => shape === "toolops" ? status : words[status]

/** 503 for unhealthy, else 200. */
const respond = (shape: Shape, status: HealthStatus, json: string): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.text(`${json}\n`, {
    status: status === "unhealthy" ? 503 : 200,
    contentType: shape === "toolops" ? "application/json" : "application/health+json",
    headers: { "cache-control": "no-store" }
  })

const statusOnly = (shape: Shape): ByStatus => {
  const one = (status: HealthStatus) => respond(shape, status, JSON.stringify({ status: statusWord(shape, status) }))
  return { healthy: one("healthy"), degraded: one("degraded"), unhealthy: one("unhealthy") }
}

/** Made once: a probe asks often and the answer is one of a few, the same size whatever there is behind it. */
export const plain: Readonly<Record<Shape, ByStatus>> = {
  toolops: statusOnly("toolops"),
  "health+json": statusOnly("health+json")
}

/** Does not repeat what was asked for. */
export const notFound = HttpServerResponse.text(`${JSON.stringify({ error: "not found" })}\n`, {
  status: 404,
  contentType: "application/json",
  headers: { "cache-control": "no-store" }
})

const millisText = (millis: number): string => `${Math.round(millis * 1000) / 1000}ms`

const bodyOf = (shape: Shape, report: CheckReport): Record<string, unknown> => {
  const time = new Date(report.checkedAt).toISOString()
  return shape === "toolops"
    ? {
      status: report.status,
      duration: millisText(report.durationMillis),
      details: report.details,
      error: report.reason,
      critical: report.critical,
      timestamp: time
    }
    : {
      componentId: report.name,
      status: words[report.status],
      time,
      observedValue: report.durationMillis,
      observedUnit: "ms",
      output: report.reason
    }
}

// A report is told as long as it is kept, so it is written once.
const written: Readonly<Record<Shape, WeakMap<CheckReport, string>>> = {
  toolops: new WeakMap(),
  "health+json": new WeakMap()
}

const write = (shape: Shape, report: CheckReport): string => {
  const known = written[shape].get(report)
  if (known !== undefined) return known
  const text = JSON.stringify(bodyOf(shape, report))
  written[shape].set(report, text)
  return text
}

const entry = (shape: Shape, report: CheckReport): string => {
  // A name needs no escapes, see `HealthCheck.make`.
  const text = write(shape, report)
  return shape === "toolops" ? `"${report.name}":${text}` : `"${report.name}:responseTime":[${text}]`
}

/** One check, with all there is to say of it. */
export const detailedCheck = (shape: Shape, report: CheckReport): HttpServerResponse.HttpServerResponse =>
  respond(shape, report.status, write(shape, report))

/** All checks, with all there is to say of them. */
export const detailed = (shape: Shape, report: Report, now: number): HttpServerResponse.HttpServerResponse => {
  const status = statusWord(shape, report.status)
  const head = shape === "toolops"
    ? `"status":"${status}","timestamp":"${new Date(now).toISOString()}","draining":${report.isDraining}`
    : `"status":"${status}"`
  const checks = report.checks.map((each) => entry(shape, each)).join(",")
  return respond(shape, report.status, `{${head},"checks":{${checks}}}`)
}
