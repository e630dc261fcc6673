import Pipeline
import PipelineAlerts
import PipelineInspect
import PipelineLedger
import PipelineNode
import PipelineRouting
import PipelineText

/// A request to the admin socket: `{"command":"routes"}`, `{"command":"explain","to":"[::1]:443",…}`.
package struct AdminRequest: Sendable, Equatable {
    package enum Command: Sendable, Equatable {
        case status
        case routes(ReportFilter)
        case backends(ReportFilter)
        /// - Parameter isConfirmed: the operator confirmed what a guard would refuse.
        case reload(isConfirmed: Bool, way: ReloadWay = .asConfigured)
        case explain(Explainer.Question)
        case top(TopQuestion)
        /// From a starting node to the draining one at its path.
        case handOver
        /// A document or a change, which follows the request.
        /// - Parameters:
        ///   - isOlder: a lower revision than the applied one is meant.
        ///   - goesOn: another one may follow on the same connection, before this one is answered.
        case apply(length: Int, isOlder: Bool, goesOn: Bool = false)
        /// What was held under this id is meant.
        case confirm(id: String)
        /// What was held under this id is not meant.
        case discard(id: String)
        case exportState
        /// What a plan of a change begins from.
        case planGround

        /// What it is called, if it changes the node: for the node's user and root alone. The others only read.
        var change: String? {
            switch self {
            case .reload: "reload"
            case .handOver: "hand_over"
            case .apply, .confirm, .discard: "apply"
            case .status, .routes, .backends, .explain, .top, .exportState, .planGround: nil
            }
        }
    }

    package let command: Command
    /// A table instead of JSON: `"format":"text"`. The first line is the exit code that goes with it.
    package let isText: Bool

    package init(_ command: Command, isText: Bool) {
        self.command = command
        self.isText = isText
    }

    /// A request that can't be answered, and what to send instead.
    package struct Fault: Error, Equatable {
        package let problem: String
        package let remedy: String
    }

    static let commands = [
        "status", "routes", "backends", "explain", "reload", "top", "hand_over", "apply", "export_state",
        "plan_ground",
    ]
    private static let names: [StaticString] = [
        "command", "format", "to", "from", "sni", "bytes", "by", "sort", "seconds", "rows", "instance", "env", "org",
        "destination", "port", "confirm", "discard", "length", "older", "now", "rollback", "owner", "state", "text",
        "more",
    ]

    package init(_ line: [UInt8]) throws(Fault) {
        let fields = try AdminRequest.fields(line)
        guard let name = fields.string("command") else {
            throw Fault(problem: "the request has no command", remedy: AdminRequest.remedy)
        }
        switch fields["format"] {
        case nil, .string("json")?: isText = false
        case .string("text")?: isText = true
        default: throw Fault(problem: "this format is unknown", remedy: "use \"json\" or \"text\", or leave it out")
        }
        switch name {
        case "status": command = .status
        case "routes": command = .routes(try ReportFilter(fields, ReportFilter.State.ofRoutes))
        case "backends": command = .backends(try ReportFilter(fields, ReportFilter.State.ofBackends))
        case "reload":
            command = .reload(isConfirmed: try fields.flag("confirm"), way: try ReloadWay(fields))
        case "explain": command = .explain(try AdminRequest.question(fields))
        case "top": command = .top(try TopQuestion(fields))
        case "hand_over": command = .handOver
        case "apply":
            command = try AdminRequest.apply(fields)
            if case .apply(_, _, goesOn: true) = command, isText {
                throw Fault(
                    problem: "several answers on one connection are JSON lines",
                    remedy: "leave out more, or \"format\":\"text\"")
            }
        case "export_state": command = .exportState
        case "plan_ground": command = .planGround
        default:
            throw Fault(problem: "there is no command \"\(name.prefix(64))\"", remedy: AdminRequest.remedy)
        }
    }

    private static let remedy = "commands: " + commands.joined(separator: ", ")

    private static func fields(_ line: [UInt8]) throws(Fault) -> FlatJSON {
        do throws(JSONError) {
            return try FlatJSON.read(line, names: names)
        } catch {
            throw Fault(
                problem: "the request is not a JSON object: \(error)", remedy: "send one like {\"command\":\"status\"}")
        }
    }

    /// With `length`, bytes follow; with `confirm` or `discard`, none do.
    private static func apply(_ fields: FlatJSON) throws(Fault) -> Command {
        let goesOn = try fields.flag("more")
        if case .string(let id)? = fields["discard"], (1...128).contains(id.utf8.count), fields["length"] == nil,
            fields["confirm"] == nil, fields["older"] == nil, !goesOn
        {
            return .discard(id: id)
        }
        switch (fields["length"], fields["confirm"], fields["older"]) {
        case (nil, .string(let id)?, nil) where (1...128).contains(id.utf8.count) && !goesOn: return .confirm(id: id)
        case (.number(let length)?, nil, _) where length > 0 && length <= UInt64(StateUpload.longest):
            return .apply(length: Int(length), isOlder: try fields.flag("older"), goesOn: goesOn)
        default:
            throw Fault(
                problem: "length, confirm or discard is wrong, or several are given",
                remedy:
                    "send one of them: the bytes that follow, 1 to \(StateUpload.longest), or the id of what is held")
        }
    }

    private static func question(_ fields: FlatJSON) throws(Fault) -> Explainer.Question {
        let (to, from) = (try endpoint("to", fields), try endpoint("from", fields))
        guard to.address.isIPv4 == from.address.isIPv4 else {
            throw Fault(
                problem: "to and from are of different families",
                remedy: "use two IPv4 or two IPv6 addresses")
        }
        switch (fields["sni"], fields["bytes"]) {
        case (nil, nil): return Explainer.Question(to: to, from: from, first: .usual)
        case (.string(let name)?, nil) where (1...255).contains(name.utf8.count):
            return Explainer.Question(to: to, from: from, first: .hello(Array(name.utf8)))
        case (nil, .string(let text)?):
            guard let bytes = Decode.hex(Array(text.utf8)[...]) else {
                throw Fault(problem: "bytes is not a hex string", remedy: "write an even number of digits 0-9, a-f")
            }
            return Explainer.Question(to: to, from: from, first: .bytes(bytes))
        default:
            throw Fault(
                problem: "sni or bytes is wrong, or both are given",
                remedy: "send one of them: a name of 1 to 255 "
                    + "bytes, or hex digits")
        }
    }

    private static func endpoint(_ name: String, _ fields: FlatJSON) throws(Fault) -> Endpoint {
        guard let endpoint = fields.string(name).flatMap({ Endpoint($0) }) else {
            throw Fault(
                problem: "\(name) is missing, or is not an address with a port",
                remedy: "write it like 192.0.2.1:443 or [2001:db8::1]:443")
        }
        return endpoint
    }

    /// As it goes over the socket, its line break included.
    package var bytes: [UInt8] {
        var line = JSONLine()
        line.open()
        switch command {
        case .status: line.field("command", "status")
        case .routes(let filter):
            line.field("command", "routes")
            filter.write(&line)
        case .backends(let filter):
            line.field("command", "backends")
            filter.write(&line)
        case .handOver: line.field("command", "hand_over")
        case .exportState: line.field("command", "export_state")
        case .planGround: line.field("command", "plan_ground")
        case .confirm(let id):
            line.field("command", "apply")
            line.field("confirm", id)
        case .discard(let id):
            line.field("command", "apply")
            line.field("discard", id)
        case .apply(let length, let isOlder, let goesOn):
            line.field("command", "apply")
            line.field("length", length)
            if isOlder { line.field("older", true) }
            if goesOn { line.field("more", true) }
        case .reload(let isConfirmed, let way):
            line.field("command", "reload")
            if isConfirmed { line.field("confirm", true) }
            way.write(&line)
        case .explain(let question):
            line.field("command", "explain")
            line.field("to", question.to.description)
            line.field("from", question.from.description)
            switch question.first {
            case .usual: break
            case .hello(let name): line.field("sni", String(decoding: name, as: UTF8.self))
            case .bytes(let bytes): line.field("bytes", Decode.hex(of: bytes))
            }
        case .top(let question):
            line.field("command", "top")
            question.write(&line)
        }
        if isText { line.field("format", "text") }
        line.close()
        line.newline()
        return line.bytes
    }
}
