import FilterCatalog
import FilterEgressAccounting
import Pipeline
import PipelineLimits
import Synchronization

/// Filters that exist only here, so that the language's tests don't depend on what the real ones become. They have
/// the shapes that the language must handle: facts, ranges, sets, repeats, required clauses, peeking, non-blocking inspection.
let fakes: [any Filter.Type] = [
    FakeAddress.self, FakeAntiSpoof.self, FakeSNI.self, FakeBackend.self, FakeProxyV2.self, FakeAccount.self,
    FakeNeedy.self, FakeRateLimit.self,
]

protocol FakeFilter: Filter where Settings == FakeSettings, WorkerState == Void {}

/// Remembers the directive, for tests to look at.
struct FakeSettings: Sendable {
    let directive: Directive
}

extension FakeFilter {
    static func settings(_ directive: Directive) throws(SettingsError) -> FakeSettings {
        FakeSettings(directive: directive)
    }
    static func evaluate(
        _ settings: FakeSettings, _ state: inout Void, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict { .next }
    static func explain(_ settings: FakeSettings, _ view: ConnectionView, _ verdict: Verdict) -> String { "" }
}

enum FakeAddress: FakeFilter {
    static let descriptor = FilterDescriptor(
        keyword: "address", summary: "", reads: [.client],
        readingEarlier: [.client: "write `peer` in its rules"],
        clauses: [
            ClauseSpec(
                "rule",
                [
                    .choice(name: "action", ["allow", "deny"]), .optional(name: "side", ["from", "to"]),
                    .set(name: "addresses"),
                ], required: true, repeats: true, summary: "")
        ], reasons: [ReasonSpec("denied", .client, "")])
}

/// Gives the client's address, and takes bytes out of the stream, if it accepts; the descriptor leaves that out, so
/// that there is a fact which no descriptor gives.
enum FakeAntiSpoof: FakeFilter {
    static let descriptor = FilterDescriptor(
        keyword: "anti_spoof", summary: "",
        clauses: [
            ClauseSpec("refuse", [.word("refuse"), .word("others")], required: true, summary: ""),
            ClauseSpec("accept", [.word("accept"), .word("from"), .set(name: "set")], repeats: true, summary: ""),
        ],
        reasons: [ReasonSpec("spoofed", .client, "")], isNonBlocking: true)
    static func peek(_ settings: FakeSettings) -> PeekNeed? {
        accepts(settings)
            ? PeekNeed(bytes: 2048, timeout: .seconds(3), consumes: true) : PeekNeed(bytes: 12, timeout: nil)
    }
    static func facts(_ settings: FakeSettings) -> StageFacts {
        StageFacts(gives: accepts(settings) ? [.client] : [])
    }
    private static func accepts(_ settings: FakeSettings) -> Bool { settings.directive.first("accept") != nil }
}

enum FakeSNI: FakeFilter {
    static let descriptor = FilterDescriptor(
        keyword: "sni", summary: "", gives: [.serverName],
        clauses: [
            ClauseSpec(
                "timeout", [.word("timeout"), .duration(name: "time", .milliseconds(1)...(.seconds(60)))], summary: ""),
            ClauseSpec("max", [.word("max"), .size(name: "bytes", 512...65536)], summary: ""),
        ], reasons: [ReasonSpec("timeout", .client, "")])
    static func peek(_ settings: FakeSettings) -> PeekNeed? {
        PeekNeed(
            bytes: Int(settings.directive.size("max") ?? 8192),
            timeout: settings.directive.duration("timeout") ?? .milliseconds(200))
    }
}

enum FakeBackend: FakeFilter {
    static let descriptor = FilterDescriptor(
        keyword: "backend", summary: "", gives: [.route, .backend],
        clauses: [
            ClauseSpec("balance", [.choice(name: "balance", ["round_robin", "least_connections"])], summary: ""),
            ClauseSpec("tries", [.word("tries"), .count(name: "number", 1...3)], summary: ""),
            ClauseSpec("health", [.word("health"), .block(name: "health", BlockKind("health"))], summary: ""),
        ], reasons: [ReasonSpec("no_route", .client, "")], blocks: catalog.blocks,
        foreignWords: ["roundrobin": ForeignWord("round_robin"), "leastconn": ForeignWord("least_connections")])

    static func settings(_ directive: Directive) throws(SettingsError) -> FakeSettings {
        if directive.count("tries") == 1, directive.word("balance") == "least_connections" {
            throw SettingsError(
                "`tries 1` makes no sense with `least_connections`", remedy: "write `tries 2`", clause: "tries")
        }
        return FakeSettings(directive: directive)
    }
}

enum FakeProxyV2: FakeFilter {
    static let descriptor = FilterDescriptor(
        keyword: "proxy_v2", summary: "", needs: [.backend],
        clauses: [
            ClauseSpec(
                "tlv", [.word("tlv"), .choice(name: "tlv", ["authority", "alpn"])], repeats: true, summary: ""),
            ClauseSpec(
                "ids",
                [.word("tlv"), .choice(name: "id", ["route", "env"]), .optionalByte(name: "type", 0xE0...0xEF)],
                repeats: true, summary: ""),
        ], reasons: [ReasonSpec("too_large", .node, "")])
}

enum FakeAccount: FakeFilter {
    static let descriptor = FilterDescriptor(keyword: "account", summary: "", needs: [.route])
    static func review(_ config: ConfigReview) -> [ConfigRemark] { AccountFilter.review(config) }
}

/// Needs what its settings say.
enum FakeRateLimit: FakeFilter {
    static let descriptor = FilterDescriptor(
        keyword: "rate_limit", summary: "",
        clauses: [ClauseSpec("limit", [.block(name: "limit", BlockKind("limit"))], required: true, summary: "")],
        reasons: [ReasonSpec("rate_exceeded", .client, "")])
    static func facts(_ settings: FakeSettings) -> StageFacts {
        let limit = (settings.directive.block("limit") as? LimitTable)?.settings
        return StageFacts(needs: limit?.key.needs ?? [], reservations: limit?.isHeld == true ? 1 : 0)
    }
}

/// Needs a fact that no filter here gives.
enum FakeNeedy: FakeFilter {
    static let descriptor = FilterDescriptor(keyword: "needy", summary: "", needs: [.client])
}

/// Counts how many of its settings live.
enum CountedFilter: Filter {
    static let live = Mutex(0)
    static let descriptor = FilterDescriptor(keyword: "counted", summary: "")
    static func settings(_ directive: Directive) throws(SettingsError) -> Int {
        live.withLock { $0 += 1 }
        return 0
    }
    static func dispose(_ settings: Int) { live.withLock { $0 -= 1 } }
    static func makeState(_ settings: Int) {}
    static func evaluate(_ settings: Int, _ state: inout Void, _ view: ConnectionView, _ effects: Effects) -> Verdict {
        .next
    }
    static func explain(_ settings: Int, _ view: ConnectionView, _ verdict: Verdict) -> String { "" }
}
