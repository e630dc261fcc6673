import Pipeline
import PipelineFlows

/// A report's question: aggregation, filters and order.
package struct ReportQuestion: Equatable, Sendable {
    package enum Order: String, CaseIterable, Sendable {
        case bytes, connections, destinations
    }

    /// One or two.
    package var by: [ReportGroup] = [.env]
    package var order = Order.bytes
    /// Rows at most.
    package var top = 20
    /// Seconds since 1970; `to` is the first second that no longer counts.
    package var from: Int64
    package var to: Int64
    package var now: Int64
    /// Filters: only flows of this instance, and so on; all given ones must match.
    package var instance: String?
    /// `org/app/env`, or the env's own id where only one env has it.
    package var env: String?
    /// `org/app`, or the app's own id where only one app has it.
    package var app: String?
    package var org: String?
    package var destination: IPAddress?
    package var port: UInt16?
    package var proto: UInt8?

    package init(by: [ReportGroup] = [.env], from: Int64, to: Int64, now: Int64) {
        (self.by, self.from, self.to, self.now) = (by, from, to, now)
    }

    func fits(_ names: FlowNames) -> Bool {
        func isOf(_ asked: String?, _ id: String) -> Bool {
            asked == nil || asked == id || id.isEmpty && asked == ReportQuestion.unknown
        }
        return isOf(instance, names.instance) && isOf(org, names.org)
            && (isOf(app, names.app) || app == ReportQuestion.path(names))
            && (isOf(env, names.env) || env == names.owner.path)
    }

    /// `org/app`, written as in an env's path.
    private static func path(_ names: FlowNames) -> String {
        String(EnvName(org: names.org, app: names.app, env: "").path.dropLast())
    }

    func fits(_ service: Int64) -> Bool {
        let service = ReportService(service)
        return (port == nil || port == service.port) && (proto == nil || proto == service.proto && !service.isRest)
    }

    /// The question in the command's words.
    package var filters: [(key: StaticString, value: String)] {
        var filters: [(key: StaticString, value: String)] = []
        if let instance { filters.append(("instance", instance)) }
        if let env { filters.append(("env", env)) }
        if let app { filters.append(("app", app)) }
        if let org { filters.append(("org", org)) }
        if let destination { filters.append(("destination", "\(destination)")) }
        if let port { filters.append(("port", "\(port)")) }
        if let proto { filters.append(("protocol", ReportService(port: 0, proto: proto).protocolName)) }
        return filters
    }

    /// `, port 25, protocol tcp`, for the report's title, so that a copied report is self-explanatory.
    package var filterText: String { filters.map { ", \($0.key) \($0.value)" }.joined() }

    // MARK: What an answer needs

    private var asksOwner: Bool { instance != nil || env != nil || app != nil || org != nil }
    var asksService: Bool { port != nil || proto != nil }
    /// The sum of services has no owners, and the other way round.
    var needsOwner: Bool { asksOwner || by.contains { $0.isOwner } }
    var needsService: Bool { asksService || by.contains(.port) }
    var needsDestination: Bool { order == .destinations || destination != nil || by.contains(.destination) }

    /// An ambiguous name is refused: all matches must have one owner.
    func fault(_ seen: Set<FlowNames>) -> LedgerProblem? {
        if instance != nil || env != nil {
            let what = env.map { "env \($0)" } ?? "instance \(instance ?? "")"
            let found = Set(seen.map(\.owner)).sorted().map(ReportQuestion.name)
            return found.count < 2 ? nil : ReportQuestion.ambiguous(what, found, "write an env as ORG/APP/ENV")
        }
        guard let app else { return nil }
        let found = Set(seen.map(ReportQuestion.path)).sorted().map { $0.isEmpty ? ReportQuestion.unknown : $0 }
        return found.count < 2 ? nil : ReportQuestion.ambiguous("app \(app)", found, "write an app as ORG/APP")
    }

    package static func name(_ env: EnvName) -> String { env.isUnknown ? unknown : env.path }

    /// The owner shown for flows without an instance of this node.
    package static let unknown = "(unknown)"
    /// R27: no more of them than someone reads.
    private static let namedLimit = 8

    private static func ambiguous(_ what: String, _ found: [String], _ remedy: String) -> LedgerProblem {
        LedgerProblem("\(mayBe(what, of: found)): name its owner: \(remedy)")
    }

    /// `env prod may be of acme/shop/prod, globex/web/prod and 3 more`.
    package static func mayBe(_ what: String, of found: [String]) -> String {
        let rest = found.count - namedLimit
        return "\(what) is ambiguous, it exists in \(found.prefix(namedLimit).joined(separator: ", "))"
            + (rest > 0 ? " and \(rest) more" : "")
    }
}
