/// Borrowed bytes, valid for the call that passed them.
public typealias Bytes = UnsafeBufferPointer<UInt8>
