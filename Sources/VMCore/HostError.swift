#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// The host's words for its error numbers.
public enum HostError {
    /// For example "Permission denied (errno 13)".
    public static func message(_ code: Int32) -> String {
        var buffer = [CChar](repeating: 0, count: 128)
        // XSI or GNU strerror_r alike leave a usable text in strerror's tables; this form is thread-safe in both.
        _ = unsafe strerror_r(code, &buffer, buffer.count)
        let text = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return text.isEmpty ? "errno \(code)" : "\(text) (errno \(code))"
    }
}
