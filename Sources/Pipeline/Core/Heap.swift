/// The two moves of a binary heap, in the caller's memory: the first element is at 0.
///
/// `moved` is called for each moved element, so that callers can track places.
public enum BinaryHeap {
    /// The element at `start` may come before those above it.
    @inlinable @inline(__always) public static func rise<Element>(
        _ items: UnsafeMutableBufferPointer<Element>, from start: Int, precedes: (Element, Element) -> Bool,
        moved: (Element, Int) -> Void = { _, _ in }
    ) {
        let element = items[start]
        var place = start
        while place > 0, precedes(element, items[(place - 1) / 2]) {
            let parent = (place - 1) / 2
            items[place] = items[parent]
            moved(items[place], place)
            place = parent
        }
        items[place] = element
        moved(element, place)
    }

    /// The element at `start` may come after those below it.
    @inlinable @inline(__always) public static func sink<Element>(
        _ items: UnsafeMutableBufferPointer<Element>, from start: Int, precedes: (Element, Element) -> Bool,
        moved: (Element, Int) -> Void = { _, _ in }
    ) {
        let element = items[start]
        var place = start
        while true {
            var child = 2 * place + 1
            guard child < items.count else { break }
            if child + 1 < items.count, precedes(items[child + 1], items[child]) { child += 1 }
            guard precedes(items[child], element) else { break }
            items[place] = items[child]
            moved(items[place], place)
            place = child
        }
        items[place] = element
        moved(element, place)
    }
}

/// The least first. Among equals any.
public struct Heap<Element: Comparable> {
    @usableFromInline var items: [Element] = []

    @inlinable public init() {}

    @inlinable public var first: Element? { items.first }
    @inlinable public var count: Int { items.count }

    @inlinable public mutating func push(_ element: Element) {
        items.append(element)
        items.withUnsafeMutableBufferPointer {
            BinaryHeap.rise($0, from: $0.count - 1, precedes: { $0 < $1 })
        }
    }

    @inlinable @discardableResult public mutating func pop() -> Element? {
        guard let last = items.popLast() else { return nil }
        guard let first = items.first else { return last }
        items[0] = last
        sinkFirst()
        return first
    }

    /// Advances the first element, or removes it if `advance` reports its end.
    @inlinable public mutating func advanceFirst(_ advance: (inout Element) throws -> Bool) rethrows {
        guard !items.isEmpty else { return }
        if try advance(&items[0]) { sinkFirst() } else { pop() }
    }

    @inlinable mutating func sinkFirst() {
        items.withUnsafeMutableBufferPointer { BinaryHeap.sink($0, from: 0, precedes: { $0 < $1 }) }
    }
}

/// The first `limit` of what is added, in an order, without keeping all of it.
public struct LargestOf<Element> {
    @usableFromInline let limit: Int
    @usableFromInline let precedes: (Element, Element) -> Bool
    /// A heap with the last of them on top, which goes when one before it comes.
    @usableFromInline var kept: [Element] = []

    @inlinable public init(_ limit: Int, by precedes: @escaping (Element, Element) -> Bool) {
        self.limit = max(0, limit)
        self.precedes = precedes
    }

    @inlinable public mutating func add(_ element: Element) {
        let precedes = precedes
        if kept.count < limit {
            kept.append(element)
            kept.withUnsafeMutableBufferPointer {
                BinaryHeap.rise($0, from: $0.count - 1, precedes: { precedes($1, $0) })
            }
        } else if let last = kept.first, precedes(element, last) {
            kept[0] = element
            kept.withUnsafeMutableBufferPointer { BinaryHeap.sink($0, from: 0, precedes: { precedes($1, $0) }) }
        }
    }

    @inlinable public var sorted: [Element] { kept.sorted(by: precedes) }
}
