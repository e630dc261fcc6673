extension StateDocument {
    /// A document without objects: what a source that is no more has to say.
    public static func empty(_ source: Source) -> StateDocument { StateDocument(source: source, seed: .random()) }
}
