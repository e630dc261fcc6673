/// libFuzzer's entry. `Fuzzed` is the target's enum of properties; Fuzz/run compiles its alias beside this file.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = UnsafeBufferPointer(start: data, count: data == nil ? 0 : count)
    if let violation = Fuzzed.violation(bytes) { fatalError(violation) }
    return 0
}
