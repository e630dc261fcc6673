extension StateDocument {
    /// A document without objects, for a source that is no longer named.
    public static func empty(_ source: Source) -> StateDocument { StateDocument(source: source, seed: .random()) }
}
