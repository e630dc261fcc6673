/// An immutable array without reference counting, for the data path: the control side writes the elements once, and the
/// owner of the snapshot or program frees them.
///
/// Threading: any number of readers. Ownership: exactly one owner calls ``deallocate()``, after the last reader.
@frozen public struct FrozenArray<Element>: @unchecked Sendable {
    public let storage: UnsafeMutableBufferPointer<Element>

    public init(_ elements: some Collection<Element>) {
        storage = .allocate(capacity: elements.count)
        _ = storage.initialize(from: elements)
    }

    /// A view of memory that another object owns: never call ``deallocate()`` on it.
    @inlinable public init(viewing elements: UnsafeMutableBufferPointer<Element>) { storage = elements }

    @inlinable public var count: Int { storage.count }
    @inlinable public var isEmpty: Bool { storage.count == 0 }
    @inlinable public subscript(_ index: Int) -> Element {
        precondition(index >= 0 && index < storage.count)
        return storage[index]
    }
    /// The address of an element; valid until ``deallocate()``.
    @inlinable public func pointer(_ index: Int) -> UnsafePointer<Element> {
        precondition(index >= 0 && index < storage.count)
        return UnsafePointer(storage.baseAddress.unsafelyUnwrapped + index)
    }
    @inlinable public var buffer: UnsafeBufferPointer<Element> { UnsafeBufferPointer(storage) }

    public func deallocate() {
        storage.deinitialize()
        storage.deallocate()
    }
}

/// Immutable text without reference counting. Same ownership as ``FrozenArray``.
@frozen public struct FrozenText: @unchecked Sendable {
    public let bytes: FrozenArray<UInt8>
    public init(_ text: String) { bytes = FrozenArray(Array(text.utf8)) }
    public init(copying text: UnsafeBufferPointer<UInt8>) { bytes = FrozenArray(text) }
    /// No characters, and no memory to free.
    public static var empty: FrozenText { FrozenText(viewing: UnsafeMutableBufferPointer(start: nil, count: 0)) }
    /// A view of memory that another object owns: never call ``deallocate()`` on it.
    @inlinable public init(viewing text: UnsafeMutableBufferPointer<UInt8>) { bytes = FrozenArray(viewing: text) }
    @inlinable public var buffer: UnsafeBufferPointer<UInt8> { bytes.buffer }
    public var string: String { String(decoding: bytes.buffer, as: UTF8.self) }
    public func deallocate() { bytes.deallocate() }
}
