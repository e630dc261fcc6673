import Pipeline
import PipelineLastGood
import PipelineRouting
import PipelineText

/// What a running node gives to who plans a change of it: what it keeps, and how many connections things have. Lines of
/// JSON, the last of them `{"end":true}`, then the document of what is desired, if it keeps any.
///
/// Threading: the control thread.
package final class PlanGroundExport {
    private static let page = 2000
    private static let pieceBytes = 65536
    /// Parts of the table that are visited for a piece.
    private static let pieceParts = 200

    private let node: RunningNode
    private let began: LastUpdate?
    private let table: RouteTableSnapshot
    private var part = 0
    private var seen: Set<UnsafePointer<BackendGroup>> = []
    private var backends: [String: UInt64] = [:]
    private var hasEnded = false
    private var export: StateExport
    private var kinds = StateKind.allCases
    private var behind: [UInt8]?

    package init(_ node: RunningNode) {
        self.node = node
        began = node.desired?.last
        table = node.routing.snapshot
        export = StateExport(revision: began?.revision, actor: began?.actor ?? "")
        if node.desired == nil { kinds = [] }
    }

    package var head: [UInt8] {
        var line = JSONLine()
        line.open()
        line.field("config", node.configPath)
        line.field("program", PlanBase.fingerprint(node.program))
        line.field("keeps", node.desired != nil)
        if let revision = node.revision { line.field("revision", revision) }
        if let began {
            line.field("source", began.source)
            line.field("actor", began.actor)
            line.field("at", began.at)
        }
        line.close()
        line.newline()
        return line.bytes
    }

    /// Made in at most a few milliseconds. Nil: it is over, or state has changed meanwhile; then it has no document, or
    /// one without a line break at its end.
    package func next() -> [UInt8]? {
        while part < table.partCount {
            let bytes = routes()
            if !bytes.isEmpty { return bytes }
        }
        if !hasEnded {
            hasEnded = true
            return backends.flatMap { PlanGroundExport.line("backend", $0.key, $0.value) } + applied()
                + Array("{\"end\":true}\n".utf8)
        }
        guard let desired = node.desired, desired.last == began, !kinds.isEmpty else { return nil }
        while let kind = kinds.first {
            behind = desired.kept.desiredPage(kind, behind: behind, count: PlanGroundExport.page) {
                _ = export.add(kind, $0)
            }
            if behind == nil {
                kinds.removeFirst()
                if kinds.isEmpty { export.end() }
            }
            if export.count > 0, behind != nil || kinds.isEmpty { break }
        }
        return export.take()
    }

    private func routes() -> [UInt8] {
        var bytes: [UInt8] = []
        let end = min(table.partCount, part + PlanGroundExport.pieceParts)
        while part < end, bytes.count < PlanGroundExport.pieceBytes {
            table.visit(part: part) { route, _ in
                let users = UInt64(route.pointee.cell.pointee.users.current)
                if users > 0 { bytes += PlanGroundExport.line("route", route.pointee.id.string, users) }
                guard seen.insert(route.group).inserted else { return }
                for backend in route.backends.buffer {
                    let active = UInt64(backend.cell.pointee.active.current)
                    if active > 0 { backends[backend.address.endpoint.description] = active }
                }
            }
            part += 1
        }
        return bytes
    }

    private static func line(_ kind: StaticString, _ name: String, _ count: UInt64) -> [UInt8] {
        var line = JSONLine()
        line.open()
        line.field(kind, name)
        line.field("connections", count)
        line.close()
        line.newline()
        return line.bytes
    }

    private func applied() -> [UInt8] {
        var line = JSONLine()
        node.desired?.kept.forEachApplied { kind, id, record in
            line.open()
            line.field("applied", UInt64(kind))
            line.key("id")
            line.hex(count: id.count) { id[$0] }
            line.key("record")
            line.hex(count: record.count) { record[$0] }
            line.close()
            line.newline()
        }
        return line.bytes
    }
}

/// The same, read.
package struct PlanGround {
    /// The config file's path, as the node has it.
    package private(set) var config = ""
    package private(set) var live = LiveConnections()
    /// Nil: the node keeps nothing.
    package private(set) var kept: LastGood?
    private var fingerprint = ""
    private var revision: UInt64?

    private static let names: [StaticString] = [
        "config", "program", "keeps", "revision", "source", "actor", "at", "route", "backend", "connections", "applied",
        "id", "record", "end",
    ]

    /// Why an answer is no ground.
    package struct Fault: Error { package let text: String }

    package init(_ answer: [UInt8]) throws(Fault) {
        var rest = answer[...]
        var applied: [(kind: UInt8, id: [UInt8], record: [UInt8])] = []
        var last: LastUpdate?
        var keeps = false
        var hasEnded = false
        while !hasEnded, let end = rest.firstIndex(of: 0x0A) {
            guard let line = try? FlatJSON.read(Array(rest[..<end]), names: PlanGround.names) else {
                throw Fault(text: "its answer is none")
            }
            rest = rest[(end + 1)...]
            let count = if case .number(let count)? = line["connections"] { count } else { UInt64(0) }
            if let path = line.string("config") {
                (config, fingerprint) = (path, line.string("program") ?? "")
                keeps = line["keeps"] == .bool(true)
                revision = PlanGround.number(line, "revision")
                last = line.string("source").map {
                    LastUpdate(
                        source: $0, revision: PlanGround.number(line, "revision"), actor: line.string("actor") ?? "",
                        at: PlanGround.number(line, "at") ?? 0)
                }
            } else if let id = line.string("route") {
                live.routes[id] = count
            } else if let address = line.string("backend") {
                live.backends[address] = count
            } else if let kind = PlanGround.number(line, "applied"), kind < 16,
                let id = PlanGround.bytes(line, "id"), let record = PlanGround.bytes(line, "record")
            {
                applied.append((UInt8(kind), id, record))
            } else {
                hasEnded = line["end"] == .bool(true)
            }
        }
        guard hasEnded else { throw Fault(text: "its answer breaks off") }
        guard keeps else { return }
        guard !rest.isEmpty else { throw Fault(text: "its desired state has changed meanwhile; run it again") }
        kept = try PlanGround.copy(Array(rest), applied, last)
    }

    private static func copy(
        _ document: [UInt8], _ applied: [(kind: UInt8, id: [UInt8], record: [UInt8])], _ last: LastUpdate?
    ) throws(Fault) -> LastGood {
        let said = ReadUpdate.read(document, "of the node")
        guard let update = said.update else { throw Fault(text: said.failure ?? "its desired state can't be read") }
        do { return try LastGood.copy(of: update, applied: applied, last: last) } catch {
            throw Fault(text: error.message)
        }
    }

    private static func number(_ line: FlatJSON, _ name: String) -> UInt64? {
        if case .number(let number)? = line[name] { number } else { nil }
    }

    private static func bytes(_ line: FlatJSON, _ name: String) -> [UInt8]? {
        guard let text = line.string(name), text.utf8.count % 2 == 0 else { return nil }
        var bytes: [UInt8] = []
        var high: UInt8?
        for digit in text.utf8 {
            guard let value = Digits.value(ofHex: digit) else { return nil }
            if let first = high { bytes.append(first << 4 | value) }
            high = high == nil ? value : nil
        }
        return bytes
    }

    /// What of the running node a base does not have.
    package func remarks(on base: PlanBase) -> [String] {
        var remarks: [String] = []
        if base.fingerprint != fingerprint {
            remarks.append(
                "the node's program is not what its config says now: the file was changed since, or is not the one that "
                    + "it runs; the plan begins from the file")
        }
        if kept == nil {
            remarks.append(
                "the node keeps no state: the plan begins from what its files say now, and who had a name there")
            if let revision, revision != base.revision {
                remarks.append("the node serves revision \(revision) of its state file, which has another one now")
            }
        }
        return remarks
    }
}
