internal import CCompression
internal import Virtio

/// Unpacks the compressed clusters of qcow2 images with zlib.
final class DeflateInflater: ClusterInflater {
    func inflate(_ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer) -> Bool {
        var stream = unsafe z_stream()
        // No header around the stream. Source: [QCOW2].
        guard unsafe inflateInit2_(&stream, -15, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else { return false }
        defer { unsafe _ = inflateEnd(&stream) }
        unsafe stream.next_in = UnsafeMutablePointer(mutating: input.bindMemory(to: UInt8.self).baseAddress)
        unsafe stream.avail_in = UInt32(clamping: input.count)
        unsafe stream.next_out = output.bindMemory(to: UInt8.self).baseAddress
        unsafe stream.avail_out = UInt32(clamping: output.count)
        let result = unsafe CCompression.inflate(&stream, Z_FINISH)
        return unsafe stream.avail_out == 0 && (result == Z_STREAM_END || result == Z_OK || result == Z_BUF_ERROR)
    }
}
