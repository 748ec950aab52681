-- What the model will read at a time: chunks of at most 170 tokens with sentence edges.
-- Ranges are bytes of the original text.
SELECT id, c['chunk_no'] AS chunk_no, c['chunk_start'] AS chunk_start, c['chunk_end'] AS chunk_end
FROM (SELECT id, unnest(chunk_text(text, 170, 0)) AS c FROM cases)
ORDER BY id, chunk_no
LIMIT 5;
