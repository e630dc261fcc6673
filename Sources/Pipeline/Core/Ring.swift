import Synchronization

/// A bounded single-producer, single-consumer ring between two threads, lock-free.
///
/// Threading: ``push(_:room:)`` by the writer, ``pop()`` by the reader. Ownership: the provider of the memory frees it.
public struct Ring<Element>: ~Copyable {
    @usableFromInline let elements: UnsafeMutablePointer<Element>
    @usableFromInline let mask: Int
    @usableFromInline let written = Atomic<Int>(0)
    @usableFromInline let read = Atomic<Int>(0)

    /// - Parameters:
    ///   - elements: memory for `capacity` elements, which are trivial.
    ///   - capacity: a power of two.
    @inlinable public init(_ elements: UnsafeMutablePointer<Element>, capacity: Int) {
        precondition(capacity > 0 && capacity & (capacity - 1) == 0)
        self.elements = elements
        mask = capacity - 1
    }

    @inlinable public var capacity: Int { mask + 1 }

    /// False if the reader is too far behind.
    /// - Parameter room: how many may wait with this one; nil: as many as there are places.
    @inlinable public borrowing func push(_ element: Element, room: Int? = nil) -> Bool {
        let head = written.load(ordering: .relaxed)
        guard head &- read.load(ordering: .acquiring) < room ?? capacity else { return false }
        (elements + (head & mask)).initialize(to: element)
        written.store(head &+ 1, ordering: .releasing)
        return true
    }

    /// The oldest, or nil.
    @inlinable public borrowing func pop() -> Element? {
        let tail = read.load(ordering: .relaxed)
        guard tail != written.load(ordering: .acquiring) else { return nil }
        let element = elements[tail & mask]
        read.store(tail &+ 1, ordering: .releasing)
        return element
    }
}
