/// An immutable array without reference counting, for what the data path reads: elements are written once by the
/// control side, and freed by whoever owns the snapshot or program that they belong to.
///
/// Threading: any number of readers. Ownership: exactly one owner calls ``deallocate()``, after the last reader.
@frozen package struct FrozenArray<Element>: @unchecked Sendable {
    @usableFromInline package let storage: UnsafeMutableBufferPointer<Element>

    package init(_ elements: some Collection<Element>) {
        storage = .allocate(capacity: elements.count)
        _ = storage.initialize(from: elements)
    }

    /// Views memory that someone else owns and frees: never call ``deallocate()`` on such a one.
    @inlinable package init(viewing elements: UnsafeMutableBufferPointer<Element>) { storage = elements }

    @inlinable package var count: Int { storage.count }
    @inlinable package var isEmpty: Bool { storage.count == 0 }
    @inlinable package subscript(_ index: Int) -> Element {
        precondition(index >= 0 && index < storage.count)
        return storage[index]
    }
    /// The address of an element; valid until ``deallocate()``.
    @inlinable package func pointer(_ index: Int) -> UnsafePointer<Element> {
        precondition(index >= 0 && index < storage.count)
        return UnsafePointer(storage.baseAddress.unsafelyUnwrapped + index)
    }
    @inlinable package var buffer: UnsafeBufferPointer<Element> { UnsafeBufferPointer(storage) }

    package func deallocate() {
        storage.deinitialize()
        storage.deallocate()
    }
}

/// Immutable text without reference counting. Same ownership as ``FrozenArray``.
@frozen package struct FrozenText: @unchecked Sendable {
    package let bytes: FrozenArray<UInt8>
    package init(_ text: String) { bytes = FrozenArray(Array(text.utf8)) }
    /// Views memory that someone else owns and frees: never call ``deallocate()`` on such a one.
    @inlinable package init(viewing text: UnsafeMutableBufferPointer<UInt8>) { bytes = FrozenArray(viewing: text) }
    @inlinable package var buffer: UnsafeBufferPointer<UInt8> { bytes.buffer }
    package var string: String { String(decoding: bytes.buffer, as: UTF8.self) }
    package func deallocate() { bytes.deallocate() }
}
