import Pipeline
import PipelineAlerts
import PipelineLedger
import PipelineRouting
import PipelineText

/// `top` as it goes over the admin socket: `{"command":"top","by":"destination","instance":"i_7","seconds":15}`.
extension TopQuestion {
    init(_ fields: FlatJSON) throws(AdminRequest.Fault) {
        self.init()
        by = try TopQuestion.choice(fields, "by", ReportGroup.allCases) ?? by
        order = try TopQuestion.choice(fields, "sort", Order.allCases) ?? order
        seconds = try TopQuestion.number(fields, "seconds", 1...TopQuestion.secondLimit)
        if let rows = try TopQuestion.number(fields, "rows", 1...UInt64(TopQuestion.rowLimit)) {
            self.rows = Int(clamping: rows)
        }
        instance = try TopQuestion.text(fields, "instance")
        env = try TopQuestion.text(fields, "env")
        org = try TopQuestion.text(fields, "org")
        port = try TopQuestion.number(fields, "port", 0...65535).map { UInt16(clamping: $0) }
        guard let text = try TopQuestion.text(fields, "destination") else { return }
        guard let address = IPAddress(text) else {
            throw AdminRequest.Fault(
                problem: "destination is not an address", remedy: "write it like 192.0.2.1 or 2001:db8::1")
        }
        destination = address
    }

    private static func choice<Choice: RawRepresentable<String>>(
        _ fields: FlatJSON, _ name: String, _ choices: [Choice]
    ) throws(AdminRequest.Fault) -> Choice? {
        guard let text = try text(fields, name) else { return nil }
        guard let choice = choices.first(where: { $0.rawValue == text }) else {
            throw AdminRequest.Fault(
                problem: "\(name) can't be \"\(text.prefix(64))\"",
                remedy: "use \(choices.map { "\"\($0.rawValue)\"" }.joined(separator: ", "))")
        }
        return choice
    }

    private static func text(_ fields: FlatJSON, _ name: String) throws(AdminRequest.Fault) -> String? {
        switch fields[name] {
        case nil: return nil
        case .string(let text)?: return text
        default: throw AdminRequest.Fault(problem: "\(name) is not a string", remedy: "write it in quotes")
        }
    }

    private static func number(
        _ fields: FlatJSON, _ name: String, _ range: ClosedRange<UInt64>
    ) throws(AdminRequest.Fault) -> UInt64? {
        switch fields[name] {
        case nil: return nil
        case .number(let number)? where range.contains(number): return number
        default:
            throw AdminRequest.Fault(
                problem: "\(name) is not a number from \(range.lowerBound) to \(range.upperBound)",
                remedy: "write it without quotes, or leave it out")
        }
    }

    func write(_ line: inout JSONLine) {
        line.field("by", by.rawValue)
        line.field("sort", order.rawValue)
        if let seconds { line.field("seconds", seconds) }
        line.field("rows", rows)
        if let instance { line.field("instance", instance) }
        if let env { line.field("env", env) }
        if let org { line.field("org", org) }
        if let destination { line.field("destination", "\(destination)") }
        if let port { line.field("port", Int(port)) }
    }
}
