/// A problem of desired state: what, where, why, and what to do.
public struct RouteProblem: Error, Hashable, Sendable {
    public enum Object: String, Sendable {
        case document, org, env, instance, route, hostname
    }
    public enum Severity: String, Sendable {
        /// The whole document was ignored.
        case fatal
        /// This object was ignored; its last good version, if any, stays (R24).
        case rejected
        /// The object is used.
        case warning
    }

    public let severity: Severity
    public let object: Object
    /// Nil if it has none that could be read.
    public let id: String?
    /// The field to look at: `hostname`.
    public let field: String?
    public let origin: Origin?
    /// What is wrong and why, a sentence without its full stop.
    public let problem: String
    /// What to do, in the imperative.
    public let remedy: String

    public init(
        _ severity: Severity, _ object: Object, id: String? = nil, field: String? = nil, origin: Origin? = nil,
        _ problem: String, remedy: String
    ) {
        self.severity = severity
        self.object = object
        self.id = id
        self.field = field
        self.origin = origin
        self.problem = problem
        self.remedy = remedy
    }
}

extension RouteProblem: CustomStringConvertible {
    /// `12:5: route "rt_web", hostname: "a.b" belongs to … (keep it off this route)`.
    public var description: String {
        var text = ""
        if case .file(let line, let column)? = origin, line > 0 { text += "\(line):\(column): " }
        if object != .document {
            text += object.rawValue
            if let id { text += " \"\(id)\"" }
            if let field { text += ", \(field)" }
            text += ": "
        }
        return text + "\(problem); \(remedy)"
    }
}

/// The problems of one document or one apply. Bounded (R27): after ``limit`` only their number grows. The fatal one is
/// always there, and last: it says that nothing was used, so nothing more is of interest.
public struct RouteProblems: Sendable {
    public static let limit = 1000
    public private(set) var list: [RouteProblem] = []
    /// How many more there were.
    public private(set) var omitted = 0
    public private(set) var rejected = 0
    public private(set) var hasFatal = false

    public init() {}

    public mutating func add(_ problem: RouteProblem) {
        guard !hasFatal else { return }
        if problem.severity == .rejected { rejected += 1 }
        if problem.severity == .fatal { hasFatal = true }
        if hasFatal || list.count < RouteProblems.limit { list.append(problem) } else { omitted += 1 }
    }

    public mutating func add(_ others: RouteProblems) {
        for problem in others.list { add(problem) }
        omitted += others.omitted
        rejected += others.rejected - others.list.count { $0.severity == .rejected }
    }

    /// Takes over how many of `others` there were beyond the limit.
    public mutating func noteOmitted(of others: RouteProblems) { omitted += others.omitted }

    public var isEmpty: Bool { list.isEmpty && omitted == 0 }
    /// True if there is room for one more text; beyond that only the number counts.
    var hasRoom: Bool { list.count < RouteProblems.limit }
}
