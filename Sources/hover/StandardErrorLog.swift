import Logging
import Windhover

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Log lines as `hover: message`, one write each; with the carriage return that a raw terminal needs.
struct StandardErrorLog: LogHandler {
    let label: String
    var logLevel = Logger.Level.warning
    var metadata: Logger.Metadata = [:]

    init(label: String) { self.label = label }

    subscript(metadataKey key: String) -> Logger.MetadataValue? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let words = metadata.merging(event.metadata ?? [:]) { $1 }.sorted { $0.key < $1.key }
        let suffix = words.map { " \($0.key)=\($0.value)" }.joined()
        let end = Terminal.isRaw ? "\r\n" : "\n"
        StandardError.write("\(label): \(event.message)\(suffix)\(end)")
    }
}
