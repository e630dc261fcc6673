/// libFuzzer's entry: any bytes as the start of a connection that may carry a PROXY header.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzProxy(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = UnsafeBufferPointer(start: data, count: data == nil ? 0 : count)
    for limit in [107, ProxyHeader.maxLength] {
        if let violation = ProxyProperties.violation(bytes, limit: limit) {
            fatalError("limit \(limit): \(violation)")
        }
    }
    return 0
}
