-- Removes what a partition has of nodes that have gone, whose numbers others will get. An owner's.
-- KEYS: the partition, its waiting events, the stream of each node. ARGV: epoch, the owner's number, then each node's number.
local mine, me = tonumber(ARGV[1]), ARGV[2]
--VERDICT
local waiting = {}
for _, field in ipairs(redis.call('HKEYS', KEYS[2])) do
  waiting[string.match(field, '^%d+') or ''] = true
end
for i = 3, #KEYS do
  local node = ARGV[i]
  redis.call('DEL', KEYS[i])
  redis.call('HDEL', KEYS[1], 'o' .. node)
  if not waiting[node] then
    redis.call('HDEL', KEYS[1], 'f' .. node)
  end
end
return {'done'}
