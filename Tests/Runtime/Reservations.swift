import Testing

/// `#expect` for conditions that ask a value which can't be copied, or change it.
func holds(_ condition: Bool, _ comment: Comment? = nil, sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(condition, comment, sourceLocation: sourceLocation)
}

struct NoMemory: Error {}
