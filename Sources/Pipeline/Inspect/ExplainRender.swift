import Pipeline
import PipelineText

extension Explanation {
    /// For people, with line breaks:
    ///
    ///     listener  [::]:443 tls_passthrough via tls (line 12)
    ///     sni       pass    the ClientHello asks for app.example.com
    ///     backend   refuse  no route for … at …: backend.no_route client
    ///     result    refused: backend.no_route client
    package var text: String {
        guard let listener else {
            return "no listener at \(to): the kernel refuses the connection\n"
        }
        var rows = [("listener", listener.text)]
        rows += others.map { ("or", $0.text) }
        for step in steps { rows.append((step.keyword, Explanation.row(step))) }
        if !backends.isEmpty {
            rows.append(("backends", backends.map(Explanation.text).joined(separator: ", ")))
        }
        if let proxy, proxy != .off { rows.append(("proxy", "PROXY header: \(proxy.rawValue) by the backends")) }
        switch outcome {
        case .relayed: rows.append(("result", "relayed to \(candidates.first.map { "\($0.address)" } ?? "?")"))
        case .queued(let reason): rows.append(("result", "waits for a place; if none comes free: \(reason)"))
        case .refused(let reason): rows.append(("result", "refused: \(reason)"))
        case .noListener: break
        }
        rows += remarks.map { ("but", $0) }
        let width = rows.map(\.0.utf8.count).max() ?? 0
        return rows.map { name, text in
            name + String(repeating: " ", count: width - name.utf8.count + 2) + text + "\n"
        }.joined()
    }

    /// A backend of a `route` block has no instance but its address.
    private static func text(_ target: Target) -> String {
        let address = target.address.description
        return target.instance == address ? address : "\(address) (\(target.instance))"
    }

    private static func row(_ step: Step) -> String {
        switch step.answer {
        case .passes: "pass    \(step.why)"
        case .waits: "wait    \(step.why)"
        case .refuses(let reason):
            step.isShadow ? "shadow  would refuse (\(reason)), but lets pass: \(step.why)" : "refuse  \(step.why)"
        }
    }

    /// One JSON object, without a line break:
    /// `{"to","from","outcome":"relayed|queued|refused|no_listener","reason","listener":{…}|null,"stages":[{"stage",
    /// "directive","line","verdict":"pass|wait|refuse","reason","shadow","why"}],"server_name","route","owner":"org/app/env","org","app","env",
    /// "backends":[{"address","instance"}],"candidates":["address"],"proxy":"off|unknown|accepted|rejected" (of a running node),
    /// "remarks":["…"] (of a running node; only if there are any)}`
    package var json: String {
        var line = JSONLine()
        line.open()
        line.field("to", to.description)
        line.field("from", from.description)
        switch outcome {
        case .relayed:
            line.field("outcome", "relayed")
            line.nullField("reason")
        case .queued(let reason):
            line.field("outcome", "queued")
            line.field("reason", reason)
        case .refused(let reason):
            line.field("outcome", "refused")
            line.field("reason", reason)
        case .noListener:
            line.field("outcome", "no_listener")
            line.nullField("reason")
        }
        writeListener(&line)
        line.list("stages", steps, Explanation.write)
        line.field("server_name", serverName)
        line.field("route", route)
        line.field("owner", owner?.path)
        line.fields(owner)
        if let instance { line.field("instance", instance) }
        line.list("backends", backends) { line, backend in
            line.open()
            line.field("address", backend.address.description)
            line.field("instance", backend.instance)
            line.close()
        }
        line.list("candidates", candidates) { $0.string($1.address.description) }
        if let proxy { line.field("proxy", proxy.rawValue) }
        if !remarks.isEmpty { line.list("remarks", remarks) { $0.string($1) } }
        line.close()
        return line.string
    }

    private func writeListener(_ line: inout JSONLine) {
        guard let listener else { return line.nullField("listener") }
        line.key("listener")
        Explanation.write(&line, listener)
        if !others.isEmpty { line.list("other_listeners", others, Explanation.write) }
    }

    private static func write(_ line: inout JSONLine, _ listener: Listener) {
        line.open()
        line.field("address", listener.endpoint.description)
        line.field("hint", listener.kindName)
        line.field("pipeline", listener.pipeline)
        if let interface = listener.interface { line.field("interface", interface) }
        line.fields(listener.line)
        line.close()
    }

    private static func write(_ line: inout JSONLine, _ step: Step) {
        line.open()
        line.field("stage", step.keyword)
        line.field("directive", step.stage)
        line.fields(step.line)
        switch step.answer {
        case .passes:
            line.field("verdict", "pass")
            line.nullField("reason")
        case .waits:
            line.field("verdict", "wait")
            line.nullField("reason")
        case .refuses(let reason):
            line.field("verdict", "refuse")
            line.field("reason", reason)
        }
        line.field("shadow", step.isShadow)
        line.field("why", step.why)
        line.close()
    }
}

extension Explanation.Listener {
    fileprivate var text: String {
        let by = interface.map { " interface \($0)" } ?? ""
        return "\(endpoint) \(kindName) via \(pipeline)\(by) (\(line))"
    }
}

extension JSONLine {
    /// The file only of an included one.
    fileprivate mutating func fields(_ place: ConfigLine) {
        if let file = place.file { field("file", file) }
        field("line", place.number)
    }
}
