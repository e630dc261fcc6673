/// The source as a syntax tree without meaning: entries of words and commas, some with a body of entries. The checker
/// reads it, and the formatter writes it back, comments included.
struct FileSyntax {
    var body: BodySyntax
}

struct WordSyntax {
    let text: String
    let span: SourceSpan
}

/// Words between commas. `span` is their position, or where they would be.
struct ClauseSyntax {
    var words: [WordSyntax]
    var span: SourceSpan
}

/// A comment with its `#`, without its line break.
struct CommentSyntax {
    let text: String
    /// An empty line stands above it.
    let blankBefore: Bool
}

/// One line, or one block: `keyword words, words, ... { body }`.
struct EntrySyntax {
    /// Comments on separate lines above it.
    var leading: [CommentSyntax]
    /// An empty line stands right above it.
    var blankBefore: Bool
    var keyword: WordSyntax
    /// At least one; the first may be empty.
    var clauses: [ClauseSyntax]
    var body: BodySyntax?
    /// The comment at the end of its line, or behind its closing brace.
    var trailing: CommentSyntax?

    /// All words in order, commas forgotten.
    var words: [WordSyntax] { [keyword] + clauses.flatMap(\.words) }
    /// The line without its body.
    var headSpan: SourceSpan { keyword.span.through(clauses.last?.span ?? keyword.span) }
}

struct BodySyntax {
    var entries: [EntrySyntax] = []
    /// The opening brace; empty for the file.
    let opening: SourceSpan
    /// The comment behind the opening brace.
    var openComment: CommentSyntax?
    /// Comments behind the last entry.
    var dangling: [CommentSyntax] = []

    var hasComments: Bool {
        openComment != nil || !dangling.isEmpty
            || entries.contains { !$0.leading.isEmpty || $0.trailing != nil || $0.body?.hasComments == true }
    }
}
