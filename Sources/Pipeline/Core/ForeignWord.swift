/// What a word of another proxy's config is here: its author gets the intended word instead of the most similar
/// spelling. docs/FROM-HAPROXY.md or docs/FROM-NGINX.md has a row for each.
public struct ForeignWord: Sendable {
    /// Our words, of which the first that is valid is suggested; with what follows them, if that matters.
    public private(set) var ours: [String]
    /// If none of them is valid. Empty: where they are.
    public private(set) var advice: [String]

    public init(_ ours: String..., advice: String? = nil) {
        self.ours = ours
        self.advice = advice.map { [$0] } ?? []
    }

    /// Of a word that is several things here.
    public func or(_ other: ForeignWord) -> ForeignWord {
        var both = self
        both.ours += other.ours
        both.advice += other.advice
        return both
    }
}

extension [String: ForeignWord] {
    /// - Parameter meanings: of a word, or of several with `|` between. One of several words (`timeout client`) comes before
    ///   its first alone.
    public static func foreignWords(_ meanings: KeyValuePairs<String, ForeignWord>) -> [String: ForeignWord] {
        var all: [String: ForeignWord] = [:]
        for (words, meaning) in meanings {
            for word in words.split(separator: "|") { all.merge([String(word): meaning]) { $0.or($1) } }
        }
        return all
    }
}
