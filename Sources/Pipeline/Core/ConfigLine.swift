/// A line of a config, for people.
public struct ConfigLine: Hashable, Sendable, CustomStringConvertible, ExpressibleByIntegerLiteral {
    /// 1 for the first line of its file.
    public let number: Int
    /// The included file that has it; nil: the config file itself.
    public let file: String?

    public init(_ number: Int, file: String? = nil) {
        self.number = number
        self.file = file
    }
    public init(integerLiteral number: Int) { self.init(number) }

    /// `line 12`, or `conf.d/web.pipeline:12`.
    public var description: String { file.map { "\($0):\(number)" } ?? "line \(number)" }
}
