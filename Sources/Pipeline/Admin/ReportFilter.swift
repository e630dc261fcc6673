import Pipeline
import PipelineRouting
import PipelineText

/// Which rows of `routes` or `backends` are asked for: those that fit all that it says.
package struct ReportFilter: Sendable, Equatable {
    /// An org, an app of it, or one env: `acme`, `acme/shop`, `acme/shop/prod`.
    package var owner: String?
    package var state: State?
    /// A part of an id, a name, an address or an owner, whatever its case.
    package var text: String?

    /// What a route or a backend can be.
    package enum State: String, Sendable, CaseIterable {
        /// New connections go there.
        case up
        /// There are backends, and none is eligible; a backend that isn't.
        case down
        /// A route without backends.
        case empty
        /// A route whose PROXY settings contradict each other: every connection is refused (R16).
        case mismatch
        /// A backend whose instance is draining, or that no route leads to any more.
        case draining, gone
        /// An object of desired state that is not in force as it is wanted (R24).
        case quarantined

        package static let ofRoutes: [State] = [.up, .down, .empty, .mismatch, .quarantined]
        package static let ofBackends: [State] = [.up, .down, .draining, .gone, .quarantined]
    }

    package init(owner: String? = nil, state: State? = nil, text: String? = nil) {
        (self.owner, self.state, self.text) = (owner, state, text)
    }

    package var isEmpty: Bool { self == ReportFilter() }
    var isQuarantine: Bool { state == .quarantined }

    /// The longest text and owner, in bytes.
    private static let longest = 400

    init(_ fields: FlatJSON, _ states: [State]) throws(AdminRequest.Fault) {
        owner = try ReportFilter.text("owner", fields)
        text = try ReportFilter.text("text", fields)
        guard let name = try ReportFilter.text("state", fields) else { return }
        state = states.first { $0.rawValue == name }
        guard state != nil else {
            throw AdminRequest.Fault(
                problem: "there is no state \"\(name.prefix(64))\" here",
                remedy: "states: " + states.map(\.rawValue).joined(separator: ", "))
        }
    }

    private static func text(_ name: String, _ fields: FlatJSON) throws(AdminRequest.Fault) -> String? {
        guard fields[name] != nil else { return nil }
        guard let text = fields.string(name), (1...longest).contains(text.utf8.count) else {
            throw AdminRequest.Fault(
                problem: "\(name) is empty, too long, or no string", remedy: "write 1 to \(longest) bytes")
        }
        return text
    }

    func write(_ line: inout JSONLine) {
        if let owner { line.field("owner", owner) }
        if let state { line.field("state", state.rawValue) }
        if let text { line.field("text", text) }
    }

    // MARK: Rows

    /// - Parameter path: `org/app/env`.
    func fits(owner path: String) -> Bool {
        guard let owner else { return true }
        return path == owner || path.hasPrefix(owner.last == "/" ? owner : owner + "/")
    }

    /// One of these has the text in it.
    func fits(_ texts: [String]) -> Bool {
        guard let text else { return true }
        let part = Array(text.utf8.map(ReportFilter.lower))
        return texts.contains { ReportFilter.has(Array($0.utf8), part) }
    }

    private static func has(_ bytes: [UInt8], _ part: [UInt8]) -> Bool {
        guard bytes.count >= part.count else { return false }
        return (0...bytes.count - part.count).contains { start in
            for index in part.indices where lower(bytes[start + index]) != part[index] { return false }
            return true
        }
    }

    private static func lower(_ byte: UInt8) -> UInt8 { (0x41...0x5A).contains(byte) ? byte | 0x20 : byte }
}

/// Which owners fit, each looked at once: a table has a million routes of far fewer envs.
struct OwnerFilter {
    private let filter: ReportFilter
    private var known: [UnsafePointer<RouteOwner>: Bool] = [:]

    init(_ filter: ReportFilter) { self.filter = filter }

    mutating func fits(_ owner: UnsafePointer<RouteOwner>) -> Bool {
        guard filter.owner != nil else { return true }
        if let fits = known[owner] { return fits }
        let fits = filter.fits(owner: owner.pointee.name.path)
        known[owner] = fits
        return fits
    }
}
