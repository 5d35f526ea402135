-- Removes a node, unless it has counted a beat since. Also for a node that leaves.
-- KEYS: nodes, beats. ARGV: the node's number, its counter as it was seen (empty: whatever it is), the channel of news.
if ARGV[2] ~= '' and redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then
  return 0
end
redis.call('HDEL', KEYS[2], ARGV[1])
local removed = redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('PUBLISH', ARGV[3], 'went')
return removed
