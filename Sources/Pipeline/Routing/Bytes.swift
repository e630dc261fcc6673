/// Bytes that someone else owns, valid for the call that gave them.
public typealias Bytes = UnsafeBufferPointer<UInt8>
