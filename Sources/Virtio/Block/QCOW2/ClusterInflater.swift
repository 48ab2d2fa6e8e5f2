/// Who unpacks compressed clusters, given at open: this module links no compression library.
public protocol ClusterInflater: AnyObject, Sendable {
    /// Unpacks one raw deflate stream (RFC 1951: no zlib header, a window of 4 KiB at most) until `output` is full. The input
    /// may have bytes behind the stream, and is not trusted.
    /// - Returns: whether all of `output` was filled. Called by several threads, one at a time for each image.
    func inflate(_ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer) -> Bool
}
