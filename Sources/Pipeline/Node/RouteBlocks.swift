import Pipeline
import PipelineLanguage
import PipelineRouting

/// The `route` blocks of a config as the routing side reads them, and its problems back at their places.
struct RouteBlocks {
    /// How many lines of a file are reported individually.
    private static let shownLines = 20

    private let blocks: [RouteBlock]
    /// The number of each block's first claim, and of all.
    private let starts: [Int]

    init(_ blocks: [RouteBlock]) {
        self.blocks = blocks
        starts = blocks.reduce(into: [0]) { $0.append(($0.last ?? 0) + $1.claimCount) }
    }

    /// Checks the blocks among themselves: each problem is an error at its block.
    static func judge(
        _ routing: RoutingState, _ seed: HashSeed, _ compilation: inout Compilation
    ) -> StateDocument {
        let all = RouteBlocks(compilation.routes)
        let groups = compilation.groups.map { group in
            GroupSpec(
                name: group.name.value, backends: group.backends.map(\.value),
                maxConnections: group.maxConnections?.value ?? 0, queue: group.queue?.value)
        }
        let (document, problems) = StateDocument.config(all.specs, groups: groups, seed: seed)
        all.report(problems, &compilation)
        all.report(routing.apply(document).problems, &compilation)
        return document
    }

    /// One at a time: a million are never there at once.
    private var specs: some Sequence<RouteSpec> {
        blocks.indices.lazy.flatMap { number in
            (0..<blocks[number].claimCount).lazy.map { spec(blocks[number], $0, index: starts[number] + $0) }
        }
    }

    private func spec(_ block: RouteBlock, _ number: Int, index: Int) -> RouteSpec {
        let claim = block.claim(number)
        var spec = RouteSpec(
            index: index, id: block.id.value, org: block.owner.value.org, app: block.owner.value.app,
            env: block.owner.value.env, hostname: claim.hostname, port: claim.port.value, hint: block.hint,
            backends: claim.group == nil ? claim.fields.backends.map(\.value) : [])
        if number > 0 {
            spec.claim = "\(claim.hostname ?? ""):\(claim.port.value)" + (claim.condition.map { " \($0.text)" } ?? "")
        }
        spec.condition = claim.condition
        spec.proxyHeader = claim.fields.proxyHeader?.value ?? .off
        spec.backendExpectsProxy = claim.fields.backendExpectsProxy?.value ?? false
        spec.allowNonTLS = block.allowNonTLS?.value ?? false
        spec.balance = claim.fields.balance?.value
        spec.maxConnections = claim.fields.maxConnections?.value ?? 0
        spec.health = claim.fields.health?.value
        spec.idleTimeout = claim.fields.idleTimeout?.value
        spec.queue = claim.fields.queue?.value
        spec.source = claim.fields.source?.value
        spec.group = claim.group?.name.value
        return spec
    }

    private func report(_ problems: RouteProblems, _ compilation: inout Compilation) {
        // By file: how many of its lines were said to be wrong.
        var lines: [Int: Int] = [:]
        var hidden = problems.rejected - problems.list.count { $0.severity == .rejected }
        var ranges = RangeProblems()
        for problem in problems.list {
            guard case .config(let index)? = problem.origin, let place = place(of: index) else { continue }
            let (block, claim) = (blocks[place.block], blocks[place.block].claim(place.claim))
            var text = ConfigLoader.sentence(problem, id: block.id.value)
            if problem.severity == .rejected, let map = block.map, let line = claim.line {
                lines[place.block, default: 0] += 1
                guard lines[place.block, default: 0] <= RouteBlocks.shownLines else {
                    hidden += 1
                    continue
                }
                text = "\(map.path.value):\(line): \(text)"
            }
            let span = span(of: problem.field, in: block, claim)
            guard ranges.isNew(problem, at: span, in: block) else { continue }
            let diagnostic = Diagnostic(
                problem.severity == .warning ? .warning : .error, at: span, text, help: [problem.remedy])
            // What is wrong with the block is wrong with each of its claims, and said once.
            if block.claimCount > 1, compilation.diagnostics.contains(where: diagnostic.saysTheSame) { continue }
            compilation.report(diagnostic)
        }
        for (span, text) in ranges.rest { compilation.report(Diagnostic(.note, at: span, text)) }
        guard hidden > 0 else { return }
        // Never a config with an error that nobody is told of.
        let last = lines.max { $0.value < $1.value }.flatMap { blocks[$0.key].map?.path }
        compilation.report(
            Diagnostic(
                .error, at: last?.span ?? blocks.last?.span ?? SourceSpan(0, 0),
                "\(last.map { "\($0.value): " } ?? "")\(hidden) more problems like these are not shown",
                help: ["fix those above and check again"]))
    }

    private func place(of index: Int) -> (block: Int, claim: Int)? {
        guard index >= 0, index < starts[blocks.count] else { return nil }
        var (low, high) = (0, blocks.count)
        while high - low > 1 {
            let middle = (low + high) / 2
            if starts[middle] <= index { low = middle } else { high = middle }
        }
        return (low, index - starts[low])
    }

    /// The routing side names fields as a state document does.
    private func span(of field: String?, in block: RouteBlock, _ claim: RouteBlock.Claim) -> SourceSpan {
        switch field {
        case _ where claim.line != nil: claim.span
        case "route_id"?: block.id.span
        case "env_id"?, "owner"?: block.owner.span
        case "hostname"?: claim.span
        case "listen_port"?, "protocol_hint"?: claim.port.span
        case "proxy_protocol"?: block.proxyHeader?.span ?? block.span
        case "backend_expects_proxy_protocol"?: block.backendExpectsProxy?.span ?? block.span
        case "balance"?: block.balance?.span ?? block.span
        case "max_connections"?: block.maxConnections?.span ?? block.span
        case "allow_non_tls"?: block.allowNonTLS?.span ?? block.span
        case "when_alpn"?, "when_protocol"?: block.conditions?.span ?? block.span
        case "backend_port"?, "backend_process_type"?: block.backends.first?.span ?? block.span
        default: block.span
        }
    }
}

/// What is wrong with each port of a range is said once, and the other ports are counted.
private struct RangeProblems {
    private struct Key: Hashable {
        let span: SourceSpan
        let field: String?
        let isWarning: Bool
    }
    private var more: [Key: Int] = [:]

    mutating func isNew(_ problem: RouteProblem, at span: SourceSpan, in block: RouteBlock) -> Bool {
        guard block.ports.count(where: { $0.span == span }) > 1 else { return true }
        let key = Key(span: span, field: problem.field, isWarning: problem.severity == .warning)
        guard let known = more[key] else {
            more[key] = 0
            return true
        }
        more[key] = known + 1
        return false
    }

    var rest: [(span: SourceSpan, text: String)] {
        more.filter { $0.value > 0 }.sorted { ($0.key.span.start, $0.value) < ($1.key.span.start, $1.value) }.map {
            ($0.key.span, "\($0.value) more ports of this range are like that")
        }
    }
}

extension Diagnostic {
    fileprivate func saysTheSame(_ other: Diagnostic) -> Bool {
        span == other.span && severity == other.severity && message == other.message
    }
}

extension ConfigLoader {
    /// `route rt_web: hostname "a.example" belongs to …`.
    static func sentence(_ problem: RouteProblem, id: String?) -> String {
        let object = id.map { "\(problem.object.rawValue) \($0)" } ?? problem.object.rawValue
        return "\(object): \(problem.field.map { $0 + " " } ?? "")\(problem.problem)"
    }
}
