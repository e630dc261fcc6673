/// The first `limit` of what is added, in an order, without keeping all of it.
struct LargestOf<Element> {
    private let limit: Int
    private let precedes: (Element, Element) -> Bool
    private var kept: [Element] = []
    /// The last of those that were the first when there was a look last; nil: there was none.
    private var bar: Element?

    init(_ limit: Int, by precedes: @escaping (Element, Element) -> Bool) {
        self.limit = max(0, limit)
        self.precedes = precedes
    }

    mutating func add(_ element: Element) {
        if let bar, !precedes(element, bar) { return }
        kept.append(element)
        if kept.count >= max(1024, 4 * limit) { shorten() }
    }

    private mutating func shorten() {
        kept.sort(by: precedes)
        guard kept.count > limit else { return }
        kept.removeLast(kept.count - limit)
        bar = kept.last
    }

    var sorted: [Element] {
        var copy = self
        copy.shorten()
        return copy.kept
    }
}
