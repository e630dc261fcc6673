/// Bytes that someone else owns, valid for the call that gave them.
package typealias Bytes = UnsafeBufferPointer<UInt8>
