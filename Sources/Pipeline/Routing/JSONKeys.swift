/// The names that an object's reader knows, in the order in which writers usually put them.
struct JSONKeys {
    let names: [StaticString]
    /// At most 64: one bit each.
    init(_ names: [StaticString]) { self.names = names }

    /// The number of `key`; `guess` is looked at first.
    @inline(__always) func index(of key: Bytes, guess: Int) -> Int? {
        if guess < names.count, matches(names[guess], key) { return guess }
        for index in names.indices where index != guess && matches(names[index], key) { return index }
        return nil
    }

    private func matches(_ name: StaticString, _ key: Bytes) -> Bool {
        name.utf8CodeUnitCount == key.count
            && sameBytes(Bytes(start: name.utf8Start, count: key.count), key)
    }
}

/// True if both hold the same bytes.
@inline(__always) func sameBytes(_ a: Bytes, _ b: Bytes) -> Bool {
    guard a.count == b.count else { return false }
    guard let left = UnsafeRawPointer(a.baseAddress), let right = UnsafeRawPointer(b.baseAddress) else { return true }
    var offset = 0
    while offset &+ 8 <= a.count {
        if left.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
            != right.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
        {
            return false
        }
        offset &+= 8
    }
    while offset < a.count {
        if left.load(fromByteOffset: offset, as: UInt8.self) != right.load(fromByteOffset: offset, as: UInt8.self) {
            return false
        }
        offset &+= 1
    }
    return true
}
